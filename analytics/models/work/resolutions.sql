-- What resolutions mean: whether a ticket that is done was delivered, too. One row per resolution; any other one delivers.
-- @resolution: Resolution, in lower case
-- @is_delivering: Whether what the ticket asked for is there: not of duplicates, nor of what was given up
-- What was said here (`outlay import work resolutions.csv`, `[work.resolutions]`) counts more than what words mean.
WITH said AS (
  SELECT lower(trim(resolution)) AS resolution, is_delivering, true AS is_own
  FROM read_parquet('lake:work/**/resolutions.parquet', union_by_name = true, hive_partitioning = false)
  UNION ALL
  SELECT unnest([
    'abandoned', 'as designed', 'by design', 'canceled', 'cancelled', 'cannot reproduce', 'can''t reproduce', 'declined',
    'deleted', 'duplicate', 'incomplete', 'invalid', 'known error', 'moved', 'no longer needed', 'not a bug',
    'not planned', 'not reproducible', 'not_planned', 'obsolete', 'out of scope', 'rejected', 'superseded', 'withdrawn',
    'won''t do', 'won''t fix', 'wontfix', 'works as designed', 'works for me'
  ]), false, false
)
SELECT resolution, is_delivering
FROM said
QUALIFY row_number() OVER (PARTITION BY resolution ORDER BY is_own DESC, is_delivering) = 1
