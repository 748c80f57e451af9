-- How long delivered work took, by type of ticket: types differ more than teams do. One row per shown group, window and type of ticket, and one of all types.
-- @team_id: Team, or (other): teams with too few builders, put together
-- @window_start: First day of the window, UTC
-- @type: Type of the first of its tickets; NULL for work without one; (all)
-- @units: Settled units of work that arrived in the window; with fewer than the scorecard needs, nothing is said of them
-- @lead_hours_p50: Hours from the start of its ticket until it arrived, of half of the units at most
-- @lead_hours_p75: … of three quarters
-- @open_hours_p50: Hours from opening its pull requests to merging the last, of half of the units at most
-- @open_hours_p75: … of three quarters
WITH delivered AS (
  SELECT
    shown_as, window_start, lower(type) AS type, epoch(unit_at - started_at) / 3600 AS lead_hours, open_hours, units_min
  FROM work_units
    JOIN scorecard_terms AS terms ON unit_at >= applies_from AND unit_at < applies_to
    JOIN scorecard_groups USING (team_id)
    LEFT JOIN tickets ON tickets.ticket_id = work_units.tickets[1]
  WHERE window_start = date_trunc(terms.period, unit_at) AND shown_as IS NOT NULL AND state = 'settled'
),
hours AS (
  SELECT
    shown_as, window_start, CASE WHEN GROUPING(type) = 1 THEN '(all)' ELSE type END AS type, count(*) AS units,
    count(*) >= any_value(units_min) AS is_enough,
    quantile_cont(lead_hours, [0.5, 0.75]) AS lead, quantile_cont(open_hours, [0.5, 0.75]) AS open
  FROM delivered
  GROUP BY GROUPING SETS ((shown_as, window_start, type), (shown_as, window_start))
)
SELECT
  shown_as AS team_id, window_start, type, units,
  CASE WHEN is_enough THEN round(lead[1], 1) END AS lead_hours_p50,
  CASE WHEN is_enough THEN round(lead[2], 1) END AS lead_hours_p75,
  CASE WHEN is_enough THEN round(open[1], 1) END AS open_hours_p50,
  CASE WHEN is_enough THEN round(open[2], 1) END AS open_hours_p75
FROM hours
