"""A page as a browser would read it."""

from html.parser import HTMLParser


class Page(HTMLParser):
    """What a browser would make of the page: tags with attributes, text by section, ids."""

    def __init__(self, text: str):
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.sections: dict[str, str] = {}
        self.open = ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        found = dict(attrs)
        self.tags.append((tag, found))
        if tag == "section":
            self.open = str(found["id"])
            self.sections[self.open] = ""

    def handle_endtag(self, tag):
        self.open = "" if tag == "section" else self.open

    def handle_data(self, data):
        if self.open:
            self.sections[self.open] += data

    def count(self, tag: str) -> int:
        return sum(found == tag for found, _ in self.tags)
