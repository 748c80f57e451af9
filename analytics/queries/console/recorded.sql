-- First and last UTC day with a call; NULL where none is recorded. One row.
SELECT CAST(min(started_at) AS DATE) AS first, CAST(max(started_at) AS DATE) AS last FROM calls
