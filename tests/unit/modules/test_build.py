"""What a module is built for: levels are asked of data that have them."""

from types import SimpleNamespace

import pytest

from engrec.modules.build import check_levels, fitted

LEVELS = {"name": "random", "importer": "test", "ordered": True}


def config(monitor="val/auc", **module):
    return {"monitor": monitor, "module": module}


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (config("val/qwk"), "monitor=val/qwk: the classes of random are not three or more levels in order"),
        (config("val/mae"), "set monitor=val/auc"),
        (config(ordinal="corn"), "module.ordinal=corn: the classes of random are not three or more levels in order"),
        (config(ordinal="corn"), "set module.ordinal=null"),
    ],
)
def test_levels_are_asked_of_classes_in_order(make_faces, asked, said):
    for faces in (make_faces(num_classes=3), make_faces(num_classes=2, recipe=LEVELS)):
        with pytest.raises(ValueError, match="class0, class1") as error:
            check_levels(asked, SimpleNamespace(faces=faces))
        assert said in str(error.value)
    check_levels(asked, SimpleNamespace(faces=make_faces(num_classes=3, recipe=LEVELS)))


@pytest.mark.parametrize("num_classes", [2, 3])
def test_nothing_is_asked_by_default(make_faces, num_classes):
    check_levels(config(), SimpleNamespace(faces=make_faces(num_classes=num_classes)))
    check_levels(config("val/loss", ordinal=None), SimpleNamespace(faces=make_faces(num_classes=num_classes)))


@pytest.mark.parametrize("size", [{"in_channels": 3}, {"image_size": 64}])
def test_a_network_for_other_images_is_refused(size):
    images, model = {"channels": 1, "height": 48}, {"_target_": "engrec.models.vgg.VGG"}
    assert fitted(model, images) == fitted({"in_channels": 1, "image_size": 48} | model, images)
    [(name, value)] = size.items()
    with pytest.raises(ValueError, match=rf"model\.{name}={value}, but the images have (1|48): leave it out"):
        fitted(model | size, images)
