"""Tables stand in line, on a terminal and in Markdown."""

from jaxface.files.tables import aligned_table


def test_columns_stand_in_line():
    table = aligned_table([["", "ours", "theirs"], ["Part IoU", "0.9", "-"]])
    assert table.split("\n") == [
        "|          | ours | theirs |",
        "| -------- | ---: | -----: |",
        "| Part IoU |  0.9 |      - |",
    ]
