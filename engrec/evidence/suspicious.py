"""Suspicious labels: those that networks which have not seen the image disagree with."""

from dataclasses import dataclass

import numpy as np

from engrec.evidence.out_of_fold import OutOfFold


@dataclass(frozen=True, eq=False)
class Suspicious:
    """N judged images, the most suspicious label first.

    index: int (N,), which images of the data set; labels, others: int (N,), the given class and the most probable other
    one; p_label, p_other: their probabilities; doubted: mask (N,) of the labels that are called suspicious.
    num_networks: of the runs that judged.
    """

    index: np.ndarray
    labels: np.ndarray
    others: np.ndarray
    p_label: np.ndarray
    p_other: np.ndarray
    doubted: np.ndarray
    num_networks: int

    def __len__(self) -> int:
        return len(self.index)

    @property
    def margin(self) -> np.ndarray:
        """p_label - p_other (N,), from -1 to 1, ascending."""
        return self.p_label - self.p_other

    @property
    def accuracy(self) -> float:
        """Share of the labels that the networks predict."""
        return float((self.margin > 0).mean())


def suspicious(found: OutOfFold, labels: np.ndarray) -> Suspicious:
    """Rank the judged labels by how much more probable another class is. labels: int, of the whole data set.

    A label is called suspicious by confident learning (Northcutt et al., Confident Learning: Estimating Uncertainty in
    Dataset Labels, JAIR 2021): the network predicts another class, and of the classes that are at least as probable as
    they are on average where they are the label, the most probable is another one.
    """
    p, given = found.probabilities, labels[found.index]
    images = np.arange(len(given))
    usual = np.array([p[given == k, k].mean() if (given == k).any() else np.inf for k in range(p.shape[1])])
    confident = np.where(p >= usual, p, -1)
    without = p.copy()
    without[images, given] = -1
    others = without.argmax(1)
    p_label, p_other = p[images, given], p[images, others]
    doubted = (confident.max(1) >= 0) & (confident.argmax(1) != given) & (p_other > p_label)
    order = np.argsort(p_label - p_other, kind="stable")
    arrays = (found.index, given, others, p_label, p_other, doubted)
    return Suspicious(*(array[order] for array in arrays), num_networks=len(found.runs))
