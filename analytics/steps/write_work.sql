-- A work table as it is now.
COPY (SELECT unnest(fields) FROM merged WHERE what <> 'gone' ORDER BY row_key) TO $file (FORMAT parquet, COMPRESSION zstd)
