"""Reads the tables of runs and reports with pandas and DuckDB, by the types in results/schema.json.

    python read.py SCHEMA FOLDER...

Every column must be there in order, hold numbers where numbers are documented, and be empty only where that is.
"""

import json
import sys
from pathlib import Path

import duckdb
import pandas as pd

# An empty field of a string is no text; of any other type it is a missing value.
PANDAS = {"string": "string", "integer": "UInt64", "number": "Float64", "boolean": "boolean"}
DUCKDB = {"string": "VARCHAR", "integer": "UBIGINT", "number": "DOUBLE", "boolean": "BOOLEAN"}


def with_pandas(path, columns):
    types = {column["name"]: PANDAS[column["type"]] for column in columns}
    strings = [name for name, kind in types.items() if kind == "string"]
    table = pd.read_csv(path, dtype=types, keep_default_na=False,
                        na_values={name: [""] for name in types if name not in strings})
    assert list(table.columns) == list(types), f"{path}: columns are {list(table.columns)}"
    for column in columns:
        values = table[column["name"]]
        assert str(values.dtype) == types[column["name"]], f"{path}: {column['name']} is {values.dtype}"
        assert column["empty"] or (not values.isna().any() and not (values == "").any()), \
            f"{path}: {column['name']} is empty somewhere"
        others = set(values.dropna()) - set(column.get("values", values))
        assert not others, f"{path}: {column['name']} has the values {others}"
    return table


def unaided(path, table, columns):
    """What pandas makes of a table that nobody told it of: no number may be read as text."""
    guessed = pd.read_csv(path)
    for column in columns:
        # Without a value a column says nothing, and booleans of which some are missing are objects to pandas.
        kinds = {"integer": "iuf", "number": "iuf", "boolean": "bO"}.get(column["type"])
        if kinds and not table[column["name"]].isna().all():
            found = guessed[column["name"]].dtype
            assert found.kind in kinds, f"{path}: {column['name']} is read as {found}"


def with_duckdb(path, table, columns):
    types = {column["name"]: DUCKDB[column["type"]] for column in columns}
    strings = [name for name, kind in types.items() if kind == "VARCHAR"]
    read = duckdb.read_csv(str(path), columns=types, header=True, auto_detect=False, delimiter=",", quotechar='"',
                           escapechar='"', null_padding=False)
    assert dict(zip(read.columns, map(str, read.types))) == types, f"{path}: types are {read.types}"
    assert len(read) == len(table), f"{path}: {len(read)} rows, and pandas has {len(table)}"
    for column in columns:
        name = column["name"]
        if name in strings:
            continue
        sums = duckdb.sql(f'select count("{name}"), sum(cast("{name}" as double)) from read').fetchone()
        own = table[name].dropna().astype(float)
        assert sums[0] == len(own), f"{path}: {name} has {sums[0]} values, and pandas {len(own)}"
        assert not len(own) or abs(sums[1] - own.sum()) <= 1e-9 * own.abs().sum(), f"{path}: {name} sums to {sums[1]}"


def main():
    schema = json.loads(Path(sys.argv[1]).read_text())
    by_file = {file: table["columns"] for table in schema["tables"] for file in table["files"]}
    by_file["compare.csv"] = by_file["longhaul compare --csv"]
    count = 0
    for folder in map(Path, sys.argv[2:]):
        for path in sorted(folder.rglob("*.csv")):
            name = "outcomes/*.csv" if path.parent.name == "outcomes" else path.name
            columns = by_file[name]
            table = with_pandas(path, columns)
            unaided(path, table, columns)
            with_duckdb(path, table, columns)
            print(f"{path}: {len(table)} rows, {len(columns)} columns")
            count += 1
    assert count > 0, "no table was found"


main()
