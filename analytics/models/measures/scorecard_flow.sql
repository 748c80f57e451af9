-- How long delivered work took, worked out now: models/scorecard/scorecard_flow.sql says what each column is. One row per shown group, window and type of ticket, and one of all types.
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
  CASE WHEN is_enough THEN round(open[2], 1) END AS open_hours_p75,
  as_of
FROM hours CROSS JOIN as_of
