-- The calls of one day of the segment that was read.
COPY (
  SELECT * EXCLUDE (day, correction, corrected_at)
  FROM segment_entries
  WHERE day = CAST($day AS DATE) AND correction IS NULL
  ORDER BY recorded_at
)
TO $file (FORMAT parquet, COMPRESSION zstd)
