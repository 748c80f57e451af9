-- How long delivered work took, by type of ticket: types differ more than teams do. One row per shown group, window and type of ticket, and one of all types.
-- @team_id: Team, or (other): teams with too few builders, put together
-- @window_start: First day of the window, UTC
-- @type: Type of the first of its tickets; NULL for work without one; (all)
-- @units: Settled units of work that arrived in the window; with fewer than the scorecard needs, nothing is said of them
-- @lead_hours_p50: Hours from the start of its ticket until it arrived, of half of the units at most
-- @lead_hours_p75: … of three quarters
-- @open_hours_p50: Hours from opening its pull requests to merging the last, of half of the units at most
-- @open_hours_p75: … of three quarters
-- @as_of: As of when that was worked out, UTC
-- The keeper writes what models/measures/scorecard_flow.sql says.
FROM read_parquet('lake:scorecard/scorecard_flow.parquet', hive_partitioning = false)
WHERE CASE WHEN getvariable('as_of') IS NULL THEN true ELSE error(
  'this is written down as of one moment: ask as of another with outlay report scorecard --as-of, outlay sql --as-of, or analytics.open(as_of=…)'
) END
