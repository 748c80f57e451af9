-- A work table without rows.
COPY (FROM read_json($incoming, format = 'newline_delimited', columns = $columns))
TO $file (FORMAT parquet, COMPRESSION zstd)
