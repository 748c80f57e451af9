-- The corrections of one day of the segment that was read.
COPY (
  SELECT * EXCLUDE (day)
  FROM segment_entries
  WHERE day = CAST($day AS DATE) AND correction IS NOT NULL
  ORDER BY corrected_at
)
TO $file (FORMAT parquet, COMPRESSION zstd)
