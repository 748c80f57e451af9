-- What is kept of one day, from the files of its segments.
COPY (FROM read_parquet($parts)) TO $file (FORMAT parquet, COMPRESSION zstd)
