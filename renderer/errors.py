"""What can go wrong, drawn first.

FriezeError
├── SpecError(ValueError)              a field of the spec is unknown or out of range
├── ModelError(ValueError)             the model folder is missing, foreign, corrupt or unsafe
├── PlanError(ValueError)              the picture cannot be drawn as asked; says what would work
├── MediaError(ValueError)             a picture or clip handed in cannot be read
├── StoreError(OSError)                the working store is missing, corrupt or in the way
│   ├── FingerprintError(ValueError)   the store belongs to another spec, model or version
│   └── TakenOverError                 another process draws into the store by now
├── ExportError(OSError)               a finished picture cannot be written in that format
├── SubmitError(RuntimeError)          a cluster cannot be reached or does not take the job
├── RenderCancelledError               the caller asked to stop; the store can be resumed
└── RenderFailedError(RuntimeError)    a worker was lost or broke; the store can be resumed

Every message says what, the value, and what would work.
"""

from __future__ import annotations


class FriezeError(Exception):
    """Root of every error that Frieze raises for its users."""


class SpecError(FriezeError, ValueError):
    """A field of the spec is unknown or out of range."""


class ModelError(FriezeError, ValueError):
    """The model folder is missing, foreign, corrupt or unsafe."""


class PlanError(FriezeError, ValueError):
    """The picture cannot be drawn as asked."""


class MediaError(FriezeError, ValueError):
    """A picture or clip handed in is missing, damaged or of another kind."""


class StoreError(FriezeError, OSError):
    """The working store is missing, corrupt or in the way."""


class FingerprintError(StoreError, ValueError):
    """The store belongs to another spec, model or version."""


class TakenOverError(StoreError):
    """Another process draws into the store by now: this one must not go on."""


class ExportError(FriezeError, OSError):
    """A picture cannot be written in that format or place."""


class SubmitError(FriezeError, RuntimeError):
    """A cluster cannot be reached, refuses us, or does not take the job."""


class RenderCancelledError(FriezeError):
    """The caller asked to stop; what was saved can be resumed."""


class RenderFailedError(FriezeError, RuntimeError):
    """A worker was lost or broke; what was saved can be resumed."""
