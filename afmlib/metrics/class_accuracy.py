"""Class accuracy: how often a classifier of real images finds the requested class."""

__all__ = ["ClassAccuracy"]

from typing import Any, ClassVar
from weakref import WeakKeyDictionary

from afmlib.interfaces import Dataset, Evaluation, EvaluationSetup, Metric, Number

_CLASSIFIERS: WeakKeyDictionary[Dataset, dict[int, Any]] = WeakKeyDictionary()


class ClassAccuracy(Metric):
    """The accuracy of a support vector machine that is trained on the training images.

    It works on pixels, so it suits only small images. It does not notice that all samples of a
    class are the same.

    Args:
        max_images: The maximum number of training images.

    Raises:
        ValueError: If ``max_images`` is not positive.
    """

    numbers: ClassVar = {
        "class_accuracy": Number(
            "class accuracy",
            "higher",
            meaning="share of samples that a classifier assigns to the requested class",
        )
    }
    requires = frozenset({"samples"})

    def __init__(self, max_images: int = 10_000) -> None:
        if max_images < 1:
            raise ValueError(f"max_images must be at least 1, got {max_images}.")
        self.max_images = max_images

    def check_setup(self, setup: EvaluationSetup) -> None:
        """Raises if the data or the number of samples does not fit."""
        setup.need_labels()
        if setup.need_dataset().num_classes < 2:
            raise ValueError("it needs data with at least two classes")

    def __call__(self, evaluation: Evaluation) -> dict[str, float]:
        """Computes ``class_accuracy``.

        Raises:
            ValueError: If the data have only one class.
        """
        dataset = evaluation.need_dataset()
        if dataset.num_classes < 2:
            raise ValueError("Class accuracy needs data of at least two classes.")
        classifiers = _CLASSIFIERS.setdefault(dataset, {})
        if self.max_images not in classifiers:
            classifiers[self.max_images] = self._fit(evaluation)
        predicted = classifiers[self.max_images].predict(_rows(evaluation.need_samples()))
        labels = evaluation.need_labels()
        return {"class_accuracy": float((predicted == labels.cpu().numpy()).mean())}

    def _fit(self, evaluation: Evaluation) -> Any:
        from sklearn.svm import SVC

        images, labels = evaluation.real_images(self.max_images)
        return SVC(C=10.0, kernel="rbf", gamma="scale").fit(_rows(images), labels.numpy())


def _rows(images: Any) -> Any:
    return images.flatten(1).cpu().numpy()
