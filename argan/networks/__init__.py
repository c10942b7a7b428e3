"""The networks: generator of scenes, discriminator of photos, estimator of depth; the precision they compute in."""

from argan.networks.blocks import GAIN, SLOPE, ResidualBlock
from argan.networks.discriminator import ModernDiscriminator, PaperDiscriminator, build_discriminator
from argan.networks.estimator import Estimator
from argan.networks.generator import ModernGenerator, PaperGenerator, SceneGenerator, build_generator
from argan.networks.mixture import ApertureMixture
from argan.networks.precision import autocast, channels_last, from_uint8, to_uint8, uses_bfloat16

__all__ = [
    "GAIN",
    "SLOPE",
    "ApertureMixture",
    "Estimator",
    "ModernDiscriminator",
    "ModernGenerator",
    "PaperDiscriminator",
    "PaperGenerator",
    "ResidualBlock",
    "SceneGenerator",
    "autocast",
    "build_discriminator",
    "build_generator",
    "channels_last",
    "from_uint8",
    "to_uint8",
    "uses_bfloat16",
]
