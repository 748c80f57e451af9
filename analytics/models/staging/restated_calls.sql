-- Calls as corrections restate them, whole. One row per correction.
-- @day: UTC day in whose folder the correction is kept, normally that of corrected_at
-- With the variable as_of, those made before it. As in booked_calls, each correction counts in exactly one of three places.
SELECT * EXCLUDE (day, place, filename, closed_through, pending, sealed), day
FROM (
  SELECT day, CASE WHEN suffix(filename, '/day.parquet') THEN 'day' ELSE 'part' END AS place, * EXCLUDE (day)
  FROM read_parquet('lake:corrections/**', filename = true, hive_partitioning = true, hive_types = {day: DATE})
  WHERE suffix(filename, '.parquet') AND NOT suffix(filename, '/anchor.parquet')
  UNION ALL BY NAME
  SELECT day, 'journal' AS place, * EXCLUDE (day)
  FROM journal_entries
  WHERE correction IS NOT NULL
), lake_marks
WHERE CASE place
  WHEN 'day' THEN day <= closed_through
  WHEN 'part' THEN day > closed_through AND segment NOT IN pending
  ELSE segment NOT IN sealed
END
  AND (getvariable('as_of') IS NULL OR corrected_at < getvariable('as_of'))
