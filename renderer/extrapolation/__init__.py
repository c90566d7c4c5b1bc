"""The parts that methods are made of, and the contract of a method."""
