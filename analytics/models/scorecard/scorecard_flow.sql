-- How long delivered work took, by type of ticket: types differ more than teams do. One row per shown group, window and type of ticket.
-- @team_id: Team, or (other): teams with too few builders, put together
-- @window_start: First day of the window, UTC
-- @type: Type of the first of its tickets; NULL for work without one
-- @units: Units of work that arrived in the window
-- @lead_hours_p50: Hours from the start of its ticket until it arrived, of half of the units at most
-- @lead_hours_p75: … of three quarters
-- @open_hours_p50: Hours from opening its pull requests to merging the last, of half of the units at most
-- @open_hours_p75: … of three quarters
SELECT
  shown_as AS team_id, window_start, lower(type) AS type, count(*) AS units,
  round(quantile_cont(epoch(unit_at - started_at) / 3600, 0.5), 1) AS lead_hours_p50,
  round(quantile_cont(epoch(unit_at - started_at) / 3600, 0.75), 1) AS lead_hours_p75,
  round(quantile_cont(open_hours, 0.5), 1) AS open_hours_p50,
  round(quantile_cont(open_hours, 0.75), 1) AS open_hours_p75
FROM work_units
  JOIN scorecard_terms AS terms ON unit_at >= applies_from AND unit_at < applies_to
  JOIN scorecard_groups USING (team_id)
  LEFT JOIN tickets ON tickets.ticket_id = work_units.tickets[1]
WHERE window_start = date_trunc(terms.period, unit_at) AND shown_as IS NOT NULL
GROUP BY ALL
