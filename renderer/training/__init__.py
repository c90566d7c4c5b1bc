"""What the trainings of models share: times of rectified flow, dropped texts; InfGen's steps."""
