"""What the compiled steps of a run compute, compared with what they computed before a resume.

`functrain.loop.resume.environment` names what was configured in another way. This finds the rest, and names nothing:
a number in a module that the model imports, a loss changed in place.
"""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field

from functrain.compiler.request import MADE
from functrain.loop.resume.saving import ResumeRefusedError, ResumeWarning


@dataclass
class Programs:
    """The compiled steps of a run, by what they are compiled for.

    Attributes:
        before: their digests at the time of the checkpoint; empty where there is nothing to compare.
        strict: refuse to go on with other ones.
        now: their digests.
    """

    before: Mapping[str, str] = field(default_factory=dict)
    strict: bool = False
    now: dict[str, str] = field(default_factory=dict)
    _said: bool = False

    def known(self) -> dict[str, str]:
        """What a checkpoint keeps."""
        return {**self.before, **self.now}

    def __call__(self, form: str, digest: str) -> None:
        """Take down what a step that is about to be compiled computes, or how one was compiled.

        Raises:
            ResumeRefusedError: if `strict`, and it computes something else than before, or was compiled otherwise.
        """
        differs = self.before.get(form, digest) != digest
        self.now[form] = digest
        if not differs or self._said:
            return
        self._said = True
        text = (
            _made_otherwise(form, self.before[form], digest)
            if form.split()[1] == MADE
            else (
                f"the compiled {form.split()[0]} step computes something else than before: the code of the model, the "
                "objective, the optimizer or functrain has changed, or a number that it uses"
            )
        )
        if self.strict:
            raise ResumeRefusedError(
                f"strict_resume: going on would not be bit for bit:\n  {text}\n"
                "Put that back as it was, or go on without strict_resume"
            )
        warnings.warn(f"this resume is not bit-for-bit because {text}", ResumeWarning, stacklevel=2)


def _made_otherwise(form: str, before: str, now: str) -> str:
    return (
        f"the {form.split()[0]} step is compiled by other means, which may round otherwise (was: {before}; is: {now})"
    )
