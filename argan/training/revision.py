"""Which code decides what the weights become: its hash is part of a checkpoint's fingerprint.

An old checkpoint must not pass for the new code's work.
"""

from __future__ import annotations

from argan import dependencies

GENERATOR = ("argan.training.sign", "argan.photos.store")
# The estimator is distilled when the generator is done: its code is in its own fingerprint alone
ESTIMATOR = ("argan.training.distill",)
# What they import and no weight depends on, and why. A change to any other module that they import makes another training.
NO_WEIGHT = {
    "argan.__init__": "names the parts of the package",
    "argan.config": "its values are in the fingerprint themselves",
    "argan.errors": "the class of an error",
    "argan.files": "writes files, whatever is in them",
    "argan.tensors": "stores tensors as they are",
    "argan.training.checkpoint": "its SCHEMA, in the fingerprint, says when the meaning of stored tensors changes",
    "argan.training.memory": "measures memory",
    "argan.training.health": "watches a training and ends it; a step it lets pass is as without it",
}


def code_revision(roots: tuple[str, ...]) -> str:
    """A short hash of the code of GENERATOR or ESTIMATOR and of all that it imports, without NO_WEIGHT."""
    return dependencies.revision(dependencies.closure(roots, NO_WEIGHT))
