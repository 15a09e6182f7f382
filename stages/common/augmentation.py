"""Random changes of pictures while a network trains on their pixels."""

from stages.common.keras_quiet import keras

PIXELS = (0, 255)

AUGMENTATIONS = {
    "crop": lambda: [
        keras.layers.RandomZoom((-0.35, 0.0), fill_mode="reflect"),
        keras.layers.RandomTranslation(0.1, 0.1, fill_mode="reflect"),
    ],
    "color": lambda: [
        keras.layers.RandomColorJitter(
            PIXELS, brightness_factor=0.2, contrast_factor=0.2, saturation_factor=0.2
        )
    ],
    "randaugment": lambda: [keras.layers.RandAugment(PIXELS, num_ops=2, factor=0.4)],
}
"""Layers, by the name in params.yaml, for pictures (n, size, size, 3) from 0 to 255.

crop: zoomed in by up to a third and moved by up to a tenth of the side, after Szegedy et al.,
"Going deeper with convolutions" (2015), section 6; color: brightness, contrast and saturation by up
to a fifth; randaugment: Cubuk et al., "RandAugment" (2020), two changes a picture.
"""


def augment(pictures: keras.KerasTensor, names: str) -> keras.KerasTensor:
    """The pictures, changed at random in every training step and left alone in prediction.

    `names` of AUGMENTATIONS are joined by `+`.
    """
    for name in names.split("+"):
        for layer in AUGMENTATIONS[name]():
            pictures = layer(pictures)
    return pictures
