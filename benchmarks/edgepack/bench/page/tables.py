"""How the page looks, and its tables."""

from collections.abc import Sequence

STYLE = """
:root{color-scheme:light dark}
body{font:15px/1.5 system-ui,sans-serif;max-width:62rem;margin:2rem auto;padding:0 1rem;
color:#1c1f23;background:#fff}
h1{margin-bottom:.2rem}h2{margin-top:2.4rem;border-bottom:1px solid #ccc}
table{border-collapse:collapse;margin:.6rem 0;display:block;overflow-x:auto}
td,th{padding:.25rem .6rem;border-bottom:1px solid #ddd;text-align:left;vertical-align:top}
td.n,th.n{text-align:right;white-space:nowrap;font-variant-numeric:tabular-nums}
.yes{color:#1d7a3a}.no{color:#b04a3a}.dim{color:#667}code{font-size:.9em;overflow-wrap:anywhere}
svg{max-width:100%;height:auto;background:#fff;border-radius:4px}
@media(max-width:44rem){table.why tr{display:grid;grid-template-columns:1fr auto auto;
border-bottom:1px solid #ddd}table.why td{border:0}table.why td:nth-child(5){grid-column:1/-1}
table.why thead{display:none}}
@media(prefers-color-scheme:dark){body{color:#e6e8ea;background:#16181b}
td,th{border-color:#333}h2{border-color:#444}.dim{color:#9aa}}
"""


def table(
    head: Sequence[str],
    rows: Sequence[Sequence[str]],
    numbers: set[int] | None = None,
    kind: str = "",
) -> str:
    """A table of HTML cells; of the kind "why", a narrow screen puts the last one below."""
    numbers = numbers or set()

    def cells(tag: str, values: Sequence[str]) -> str:
        return "".join(
            f'<{tag} class="n">{value}</{tag}>' if index in numbers else f"<{tag}>{value}</{tag}>"
            for index, value in enumerate(values)
        )

    body = "".join(f"<tr>{cells('td', row)}</tr>" for row in rows)
    style = f' class="{kind}"' if kind else ""
    return f"<table{style}><thead><tr>{cells('th', head)}</tr></thead><tbody>{body}</tbody></table>"
