-- Resolutions of tickets that are done and yet not delivered: duplicates, and what was given up. One row per resolution.
-- @resolution: Resolution, in lower case, with straight apostrophes
-- Any other resolution, and none, delivers. What was said here (`[work.resolutions]`, `outlay import work
-- resolutions.csv`) counts more than what words mean.
WITH words AS (
  SELECT unnest([
    'abandoned', 'as designed', 'by design', 'canceled', 'cancelled', 'cannot reproduce', 'can''t reproduce', 'declined',
    'deleted', 'duplicate', 'incomplete', 'invalid', 'known error', 'moved', 'no longer needed', 'not a bug',
    'not planned', 'not reproducible', 'not_planned', 'obsolete', 'out of scope', 'rejected', 'superseded', 'withdrawn',
    'won''t do', 'won''t fix', 'wontfix', 'works as designed', 'works for me'
  ]) AS resolution
),
own AS (
  SELECT replace(lower(trim(resolution)), '’', '''') AS resolution, bool_and(is_delivering) AS is_delivering
  FROM resolutions
  GROUP BY ALL
)
SELECT resolution FROM words WHERE resolution NOT IN (SELECT resolution FROM own)
UNION
SELECT resolution FROM own WHERE NOT is_delivering
