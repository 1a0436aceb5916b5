"""The pieces of a page: cards, notices, figures, tables. Everything that comes from outside is escaped here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from importlib.resources import files

from fastguide.report.charts import swatch


def card(term: str, value: str, note: str = "", *, small: str = "", main: bool = False) -> str:
    """Return a summary card."""
    extra = f" <small>{escape(small)}</small>" if small else ""
    below = f"<p>{escape(note)}</p>" if note else ""
    return (
        f'<dl class="card{" main" if main else ""}"><dt>{escape(term)}</dt><dd>{escape(value)}{extra}</dd>{below}</dl>'
    )


def cards(items: Sequence[str]) -> str:
    """Return a grid of cards, with as many columns as leave the fewest places empty."""
    columns = min((6, 5, 4), key=lambda n: -len(items) % n)
    return f'<div class="cards" style="--columns:{columns}">{"".join(items)}</div>'


def notices(warnings: Sequence[str], calm: str, notes: Sequence[str] = ()) -> str:
    """Return a box for each warning, or a calm one where there is none; then the notes."""
    boxes = [f'<p class="notice warn"><b>Warning.</b> {escape(text)}</p>' for text in warnings]
    if not warnings and calm:
        boxes.append(f'<p class="notice calm">{escape(calm)}</p>')
    boxes += [f'<p class="notice calm"><b>Note.</b> {escape(text)}</p>' for text in notes]
    return f'<div class="notices">{"".join(boxes)}</div>'


def legend(entries: Iterable[tuple[str, str]]) -> str:
    """Return a legend of ``(class, name)``."""
    return '<div class="legend">' + "".join(f"<span>{swatch(c)}{escape(n)}</span>" for c, n in entries) + "</div>"


def figure(title: str, content: str, caption: str, *, key: Iterable[tuple[str, str]] = (), cls: str = "") -> str:
    """Return a figure: title, legend, drawing and a caption that says what to see; ``cls`` is its width."""
    return (
        f"<figure{f' class={cls}' if cls else ''}><h3>{escape(title)}</h3>{legend(key)}{content}"
        f"<figcaption>{escape(caption)}</figcaption></figure>"
    )


def section(title: str, content: str, lead: str = "") -> str:
    """Return a section with its heading."""
    intro = f'<p class="lead">{escape(lead)}</p>' if lead else ""
    return f"<section><h2>{escape(title)}</h2>{intro}{content}</section>"


def table(head: Sequence[str], bodies: Iterable[str]) -> str:
    """Return a table that scrolls sideways where it is too wide; ``bodies`` are ready rows."""
    columns = "".join(f"<th>{cell}</th>" for cell in head)
    return f'<div class="scroll"><table><thead><tr>{columns}</tr></thead>{"".join(bodies)}</table></div>'


def pairs(items: Mapping[str, object]) -> str:
    """Return names and values in two columns."""
    rows = "".join(f"<div><dt>{escape(str(k))}</dt><dd>{escape(_plain(v))}</dd></div>" for k, v in items.items())
    return f'<dl class="pairs">{rows}</dl>'


def _plain(value: object) -> str:
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, (list, tuple)):
        return ", ".join(map(_plain, value))
    if isinstance(value, Mapping):
        return ", ".join(f"{k} {_plain(v)}" for k, v in value.items())
    return str(value)


def page(title: str, subtitle: str, body: str, footer: str) -> str:
    """Return a whole HTML document that needs nothing beside itself."""
    style = files("fastguide.report").joinpath("style.css").read_text(encoding="utf-8")
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{style}</style></head><body>"
        f'<header><p class="brand">fastguide</p><h1>{escape(title)}</h1>'
        f'<p class="subtitle">{escape(subtitle)}</p></header>'
        f"<main>{body}</main><footer>{escape(footer)}</footer></body></html>\n"
    )
