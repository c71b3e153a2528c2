"""The one exception that means: the user's input is at fault, and here is what to do."""


class UserError(Exception):
    """A mistake in input that the user can mend. The CLI prints it without a traceback and exits with code 2.

    Args:
        what: what is wrong, in one sentence.
        where: `file:line:field` as far as it is known.
        fix: what to do about it.
        docs: the docs page that helps, as a path under `docs/` with an optional anchor.
    """

    def __init__(self, what: str, *, where: str | None = None, fix: str | None = None, docs: str | None = None):
        super().__init__(what)
        self.what, self.where, self.fix, self.docs = what, where, fix, docs

    def __str__(self) -> str:
        lines = [f"{self.where}: {self.what}" if self.where else self.what]
        if self.fix:
            lines.append(f"  what to do: {self.fix}")
        if self.docs:
            lines.append(f"  see: {self.docs}")
        return "\n".join(lines)

    def __reduce__(self):
        return _rebuild, (self.what, self.where, self.fix, self.docs)


def _rebuild(what: str, where: str | None, fix: str | None, docs: str | None) -> UserError:
    return UserError(what, where=where, fix=fix, docs=docs)
