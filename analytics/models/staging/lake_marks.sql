-- What lake_state says, for queries to tell which copy of a record counts. One row per data folder, read when the query runs.
-- @closed_through: The last UTC day of which the whole files count
-- @pending: Journal segments whose part files do not count yet
-- @sealed: Journal segments whose part files count, and they themselves no more
SELECT
  coalesce(max(day) FILTER (WHERE state = 'closed'), DATE '0001-01-01') AS closed_through,
  coalesce(list(DISTINCT segment) FILTER (WHERE state = 'pending'), []) AS pending,
  coalesce(list(DISTINCT segment) FILTER (WHERE state = 'sealed'), []) AS sealed
FROM lake_state
