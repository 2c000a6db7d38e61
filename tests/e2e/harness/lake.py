"""The tables as outsiders read them: the file list from the `deltalake` package, the rows from DuckDB.

DuckDB's own Delta extension is not used, as it has to be downloaded at run time.
"""

import contextlib
import shutil

import duckdb
import pyarrow
from deltalake import DeltaTable
from deltalake.exceptions import TableNotFoundError

TABLES = ("events", "dead_letters")
PARTITIONS = "hive_partitioning = true, hive_types = {'event_date': DATE}"


def mirror(source, target):
    """Copies what is new below `source`, for readers that would resolve a path of another mount to one of ours.

    Logs are copied before data is listed: by the time a commit can be seen, its files are there.
    """
    for pattern in ("*/_delta_log/*", "**/*.parquet"):
        for path in source.glob(pattern):
            copy = target / path.relative_to(source)
            copy.parent.mkdir(parents=True, exist_ok=True)
            if not copy.exists() or path.name == "_last_checkpoint":
                with contextlib.suppress(FileNotFoundError):
                    shutil.copyfile(path, copy)
    return target


class Lake:
    """The tables below one directory or prefix of a bucket. Every call looks at the newest version."""

    def __init__(self, path, options=None):
        """`options`: how the `deltalake` package reaches a bucket."""
        self.path, self.options = path, options

    def table(self, name):
        return DeltaTable(f"{self.path}/{name}", storage_options=self.options)

    def files(self, name):
        return self.table(name).file_uris()

    def sql(self, query):
        """Rows of `query`, as dictionaries, over the views `events` and `dead_letters` (absent until there is a row)."""
        with duckdb.connect() as session:
            for name in TABLES:
                self._view(session, name)
            result = session.execute(query)
            names = [column[0] for column in result.description]
            return [dict(zip(names, row, strict=True)) for row in result.fetchall()]

    def _view(self, session, name):
        try:
            table = self.table(name)
        except TableNotFoundError:
            return
        files = table.file_uris()
        if files and self.options:
            # DuckDB's way to a bucket is an extension that would have to be downloaded.
            session.register(name, table.to_pyarrow_dataset())
        elif files:
            session.execute(
                f"create view {name} as select * from read_parquet({files!r}, union_by_name = true, {PARTITIONS})"
            )
        else:
            session.register(name, pyarrow.schema(table.schema().to_arrow()).empty_table())

    def has_rows(self, name):
        try:
            return bool(self.files(name))
        except TableNotFoundError:
            return False

    def count(self, name, where="true"):
        """Number of rows, 0 where there is no table yet."""
        return self.sql(f"select count(*) as n from {name} where {where}")[0]["n"] if self.has_rows(name) else 0
