-- The calls of one day of the segment that was read.
COPY (SELECT * EXCLUDE (day) FROM segment_calls WHERE day = CAST($day AS DATE) ORDER BY recorded_at)
TO $file (FORMAT parquet, COMPRESSION zstd)
