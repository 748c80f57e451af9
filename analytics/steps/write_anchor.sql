-- A file without calls: it gives the columns, and a glob something to find.
COPY (SELECT * EXCLUDE (day) FROM journal_calls LIMIT 0) TO $file (FORMAT parquet, COMPRESSION zstd)
