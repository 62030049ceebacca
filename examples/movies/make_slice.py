"""Make movies.csv: the 6000 most reviewed films of the bokeh-sampledata package, one row a film.

Run it where the package is installed (pip install bokeh-sampledata==2026.1):

    python make_slice.py movies.csv
"""

import csv
import sqlite3
import sys
from contextlib import closing
from importlib.resources import as_file, files
from pathlib import Path

FILMS = 6000
QUERY = """
    SELECT Title, Year, Released, omdb.Rating, Runtime, Director, Writer, Language, Country, Production,
           tomatoes.Rating, Meter, Reviews, BoxOffice, Genre
    FROM omdb JOIN tomatoes USING (ID)
    WHERE Reviews IS NOT NULL
    ORDER BY Reviews DESC, imdbID
    LIMIT ?
"""
COLUMNS = (
    "title",
    "year",
    "released",
    "age_rating",
    "runtime_minutes",
    "director",
    "writer",
    "language",
    "country",
    "production",
    "critics_rating",
    "critics_percent",
    "reviews",
    "box_office_usd",
    "genres",
)


def as_text(value: object) -> str:
    """A cell; whole numbers that SQLite stores as reals lose their ".0"."""
    if value is None:
        return ""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)


def main(out: Path) -> None:
    """Write the slice to `out`."""
    with (
        as_file(files("bokeh_sampledata") / "_data" / "movies.db") as path,
        closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as database,
    ):
        films = database.execute(QUERY, (FILMS,)).fetchall()
    with out.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        for *values, genres in sorted(films, key=lambda film: (film[1], film[0])):
            labels = "|".join(name.strip() for name in (genres or "").split(",") if name.strip())
            writer.writerow([*map(as_text, values), labels])


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "movies.csv"))
