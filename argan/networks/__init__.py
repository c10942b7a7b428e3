"""The networks: generator of scenes, discriminator, estimator of depth; precision."""

from argan.networks.modules import (
    GAIN,
    SLOPE,
    Estimator,
    ModernDiscriminator,
    ModernGenerator,
    PaperDiscriminator,
    PaperGenerator,
    ResidualBlock,
    Scene,
    discriminator,
    from_uint8,
    generator,
    mixed,
    placed,
    rounds,
    to_uint8,
)

__all__ = [
    "GAIN",
    "SLOPE",
    "Estimator",
    "ModernDiscriminator",
    "ModernGenerator",
    "PaperDiscriminator",
    "PaperGenerator",
    "ResidualBlock",
    "Scene",
    "discriminator",
    "from_uint8",
    "generator",
    "mixed",
    "placed",
    "rounds",
    "to_uint8",
]
