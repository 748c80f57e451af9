-- All calls as they were first recorded, up to the last one answered. One row per call.
-- @day: UTC day in whose folder the call is kept, normally that of recorded_at; a filter on it reads only those days
-- Each call counts in exactly one of three places: the file of its day, the file of its segment, the journal. Which
-- one is decided by the state, read once, when the query runs; analytics/lake.py says why that is exact. A pattern that
-- ends in ** passes over links, which is how a file that counts no more is taken away from under running queries.
-- With the variable as_of, those recorded before it.
-- One join above the union, and `day` first in it, so that a bare count(*) reads hardly any column.
SELECT * EXCLUDE (day, place, filename, closed_through, pending, sealed), day
FROM (
  SELECT day, CASE WHEN suffix(filename, '/day.parquet') THEN 'day' ELSE 'part' END AS place, * EXCLUDE (day)
  FROM read_parquet('lake:calls/**', filename = true, hive_partitioning = true, hive_types = {day: DATE})
  WHERE suffix(filename, '.parquet') AND NOT suffix(filename, '/anchor.parquet')
  UNION ALL BY NAME
  SELECT day, 'journal' AS place, * EXCLUDE (day, correction, corrected_at)
  FROM journal_entries
  WHERE correction IS NULL
), lake_marks
WHERE CASE place
  WHEN 'day' THEN day <= closed_through
  WHEN 'part' THEN day > closed_through AND segment NOT IN pending
  ELSE segment NOT IN sealed
END
  AND (getvariable('as_of') IS NULL OR recorded_at < getvariable('as_of'))
