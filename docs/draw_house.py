"""Draws images/house.svg from the table in architecture.md: `python docs/draw_house.py`.

A floor per room, foundations at the bottom, the commands under the roof.
"""

import re
from pathlib import Path
from xml.sax.saxutils import escape

DOCS = Path(__file__).parent
PICTURE = DOCS / "images" / "house.svg"
WIDTH, FLOOR, ROOF, MARGIN = 760, 30, 70, 30


def house() -> str:
    """The drawing as SVG."""
    text = (DOCS / "architecture.md").read_text(encoding="utf-8")
    rooms = re.findall(r"^\| `(\w+)/` \| ([^:;|]+)", text, re.MULTILINE)
    count = len(rooms)
    bottom, left, right = ROOF + FLOOR * count, MARGIN, WIDTH - 90
    pieces = [
        f'<polygon points="{left - 20},{ROOF} {(left + right) // 2},6 {right + 20},{ROOF}" fill="#b5523b"/>',
        f'<text x="{(left + right) // 2}" y="{ROOF - 16}" text-anchor="middle" fill="#fff">'
        "<tspan font-weight='bold'>commands</tspan>  fit, train, reconstruct, ...</text>",
    ]
    for index, (name, held) in enumerate(rooms):
        top = bottom - FLOOR * (index + 1)
        shade = 246 - 5 * (count - index)  # darker towards the foundations
        pieces += [
            f'<rect x="{left}" y="{top}" width="{right - left}" height="{FLOOR - 2}" '
            f'fill="rgb({shade - 10},{shade - 4},{shade})"/>',
            f'<text x="{left + 12}" y="{top + 19}" font-weight="bold">{name}</text>',
            f'<text x="{left + 130}" y="{top + 19}" font-size="13">{escape(held.strip())}</text>',
        ]
    x = right + 45
    pieces += [
        f'<line x1="{x}" y1="{ROOF}" x2="{x}" y2="{bottom - 14}" stroke="#b5523b" stroke-width="3"/>',
        f'<polygon points="{x - 8},{bottom - 16} {x + 8},{bottom - 16} {x},{bottom - 2}" fill="#b5523b"/>',
        f'<text x="{x + 16}" y="{(ROOF + bottom) // 2}" font-size="13" fill="#b5523b" text-anchor="middle" '
        f'transform="rotate(90 {x + 12} {(ROOF + bottom) // 2})">imports go down only</text>',
    ]
    height = bottom + 10
    box = f'viewBox="0 0 {WIDTH} {height}"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {box} font-family="sans-serif" font-size="15">'
    paper = f'<rect width="{WIDTH}" height="{height}" fill="#fff"/>'
    return "\n".join([head, paper, *pieces, "</svg>", ""])


if __name__ == "__main__":
    PICTURE.write_text(house(), encoding="utf-8")
