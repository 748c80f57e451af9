-- Under what name teams are shown in a window, so that no group of fewer builders than the scorecard needs can be told. One row per team and window.
-- @window_start: First day of the window, UTC
-- @window_end: First day after it, UTC
-- @team_id: Team; NULL for what belongs to none
-- @builder_weeks: Weeks that its builders had in the window, up to now: as teams say, else its users
-- @builders: Builders of the team, on average over the window
-- @shown_as: The team; (other), together with more teams; NULL where even those would be too few, or for what belongs to none
-- Too small teams are put together. Where that is one alone, or too small, too, the next smallest go with it: no
-- difference between what is shown and a total of all tells of a small one. Who was in a team is known of the present
-- alone, so it is as small as it is or was. A team without people has nobody to protect.
WITH spent AS MATERIALIZED (
  SELECT team_id, window_start FROM team_spend
),
known AS (
  SELECT team_id FROM users WHERE team_id <> ''
  UNION
  SELECT team_id FROM teams
  UNION
  SELECT team_id FROM spent
),
starts AS (
  SELECT date_trunc(period, ended_at) AS window_start
  FROM production_deployments JOIN scorecard_terms ON ended_at >= applies_from AND ended_at < applies_to
  UNION
  SELECT date_trunc(period, merged_at)
  FROM pull_requests JOIN scorecard_terms ON merged_at >= applies_from AND merged_at < applies_to
  WHERE list_contains(merged_repos, repo)
  UNION
  SELECT window_start FROM spent
),
met AS (
  SELECT team_id, window_start, period, builders_min
  FROM known CROSS JOIN starts JOIN scorecard_terms ON window_start >= applies_from AND window_start < applies_to
),
spans AS (
  SELECT *, window_start + CASE period WHEN 'quarter' THEN INTERVAL 3 MONTH ELSE INTERVAL 1 MONTH END AS window_end
  FROM met
),
days AS (
  SELECT *, CAST(unnest(generate_series(window_start, window_end - INTERVAL 1 DAY, INTERVAL 1 DAY)) AS DATE) AS on_day
  FROM spans
),
users_of AS (
  SELECT team_id, count(*) AS builders FROM users GROUP BY team_id
),
first_known AS (
  SELECT team_id, arg_min(builders, week) AS builders FROM teams GROUP BY team_id
),
sized AS (
  SELECT
    window_start, window_end, days.team_id, builders_min,
    avg(coalesce(weekly.builders, first_known.builders, users_of.builders, 0)) AS builders,
    sum(coalesce(weekly.builders, first_known.builders, users_of.builders, 0)) FILTER (WHERE on_day <= as_of) / 7 AS builder_weeks,
    coalesce(least(
      nullif(avg(coalesce(weekly.builders, first_known.builders, users_of.builders)), 0), any_value(users_of.builders)
    ), 0) AS people
  FROM days CROSS JOIN as_of
    ASOF LEFT JOIN teams AS weekly ON weekly.team_id = days.team_id AND weekly.week <= on_day
    LEFT JOIN first_known ON first_known.team_id = days.team_id
    LEFT JOIN users_of ON users_of.team_id = days.team_id
  GROUP BY ALL
),
ordered AS (
  SELECT
    *,
    count(*) FILTER (WHERE people < builders_min) OVER windows AS small_ones,
    row_number() OVER by_size AS place,
    coalesce(sum(people) OVER (by_size ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING), 0) AS people_before
  FROM sized
  WHERE team_id IS NOT NULL AND people > 0
  WINDOW windows AS (PARTITION BY window_start), by_size AS (PARTITION BY window_start ORDER BY people, team_id)
),
hidden AS (
  SELECT *, people < builders_min OR (small_ones > 0 AND (place <= 2 OR people_before < builders_min)) AS is_hidden
  FROM ordered
),
shown AS (
  SELECT *,
    count(*) FILTER (WHERE is_hidden) OVER windows AS hidden_ones,
    sum(people) FILTER (WHERE is_hidden) OVER windows AS hidden_people
  FROM hidden
  WINDOW windows AS (PARTITION BY window_start)
)
SELECT
  window_start, window_end, team_id, builder_weeks, builders,
  CASE WHEN NOT is_hidden THEN team_id WHEN hidden_ones >= 2 AND hidden_people >= builders_min THEN '(other)' END
    AS shown_as
FROM shown
UNION ALL
SELECT window_start, window_end, team_id, builder_weeks, builders, team_id FROM sized WHERE team_id IS NULL OR people = 0
