"""What a module is built for: levels are asked of data that have them."""

from types import SimpleNamespace

import pytest

from engrec.modules.build import check_levels

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
