-- A work table of these rows and no others.
COPY (
  FROM read_json($incoming, format = 'newline_delimited', columns = $columns, maximum_object_size = 67108864)
)
TO $file (FORMAT parquet, COMPRESSION zstd)
