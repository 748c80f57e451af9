-- All calls, up to the last one answered, as the latest correction states them. One row per call: one attempt of a request to a provider, and its answer.
-- @recorded_at: When the gateway closed the record, UTC; a correction does not change it
-- @segment: Journal segment that the call, or its latest correction, was recorded in
-- @day: UTC day on which the call was booked, normally that of recorded_at; a filter on it reads only those days
-- A call counts as it was booked, in one of three places as in booked_calls, unless it is corrected; then its latest
-- correction counts. All parts of the query see one and the same set of corrections: it is read once (MATERIALIZED).
-- Only in days with a corrected call is call_id read, to leave that call out. Calls that are kept on a later day than
-- they were recorded on (late_calls) could be any day's.
-- With the variable as_of, those recorded before it, as they were corrected before it.
-- One join above the union, and `day` first in it, so that a bare count(*) reads hardly any column.
SELECT * EXCLUDE (day, place, closed_through, pending, sealed), day
FROM (
  WITH restated AS MATERIALIZED (
    FROM restated_calls
  ),
  corrected_days AS MATERIALIZED (
    SELECT CAST(recorded_at AS DATE) AS day FROM restated
    UNION
    SELECT day FROM lake_state WHERE late_calls > 0
  )
  SELECT day, CASE WHEN suffix(filename, '/day.parquet') THEN 'day' ELSE 'part' END AS place, * EXCLUDE (day, filename)
  FROM read_parquet('lake:calls/**', filename = true, hive_partitioning = true, hive_types = {day: DATE})
    ANTI JOIN corrected_days USING (day)
  WHERE suffix(filename, '.parquet') AND NOT suffix(filename, '/anchor.parquet')
  UNION ALL BY NAME
  SELECT day, CASE WHEN suffix(filename, '/day.parquet') THEN 'day' ELSE 'part' END AS place, * EXCLUDE (day, filename)
  FROM read_parquet('lake:calls/**', filename = true, hive_partitioning = true, hive_types = {day: DATE})
    SEMI JOIN corrected_days USING (day)
    ANTI JOIN restated USING (call_id)
  WHERE suffix(filename, '.parquet') AND NOT suffix(filename, '/anchor.parquet')
  UNION ALL BY NAME
  SELECT day, 'journal' AS place, * EXCLUDE (day, correction, corrected_at)
  FROM journal_entries ANTI JOIN restated USING (call_id)
  WHERE correction IS NULL
  UNION ALL BY NAME
  SELECT CAST(recorded_at AS DATE) AS day, 'correction' AS place, * EXCLUDE (day, correction, corrected_at)
  FROM restated
  QUALIFY row_number() OVER (PARTITION BY call_id ORDER BY corrected_at DESC, segment DESC) = 1
), lake_marks
WHERE CASE place
  WHEN 'day' THEN day <= closed_through
  WHEN 'part' THEN day > closed_through AND segment NOT IN pending
  WHEN 'journal' THEN segment NOT IN sealed
  ELSE true
END
  AND (getvariable('as_of') IS NULL OR recorded_at < getvariable('as_of'))
