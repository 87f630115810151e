import pytest
from dashboard_runs import looked, made
from finished_runs import CLASSES, some_images


@pytest.fixture
def faces_run(tmp_path, make_faces):
    """A run on a prepared file of 60 images that are of nobody; `importer` says whether they count as drawn."""

    def faces_run(importer):
        images = some_images()
        faces = make_faces(
            60,
            sources=images.sources,
            labels=images.labels,
            class_names=CLASSES,
            recipe={"name": "x", "importer": importer},
        )
        faces.save(tmp_path / "faces.npz")
        made(
            tmp_path / "outputs" / "run",
            images,
            settings={"dataset": {"_target_": "engrec.datasets.prepared.load", "path": str(tmp_path / "faces.npz")}},
        )
        return looked(tmp_path / "outputs")

    return faces_run
