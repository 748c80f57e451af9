-- Normalized deployments, worked out now: models/scorecard/normalized_deployments.sql says what each column is. One row per shown group and window.
WITH shown AS MATERIALIZED (
  FROM scorecard_groups WHERE shown_as IS NOT NULL
),
groups AS (
  SELECT
    shown_as, window_start, any_value(window_end) AS window_end, sum(builders) AS builders,
    sum(coalesce(settled.builder_weeks, shown.builder_weeks)) AS builder_weeks
  FROM shown LEFT JOIN settled_windows AS settled USING (team_id, window_start)
  GROUP BY shown_as, window_start
),
writers AS (
  SELECT shown_as, window_start, count(DISTINCT author) AS authors
  FROM unit_prs JOIN (SELECT pr_id, author FROM arrived_prs) AS prs USING (pr_id) JOIN shown USING (team_id)
  WHERE arrived_at >= window_start AND arrived_at < window_end
  GROUP BY shown_as, window_start
),
units AS (
  SELECT * EXCLUDE (teams, team_id, normalized_deployments), unnest(teams, recursive := true), normalized_deployments AS whole,
    team_id AS main_team
  FROM work_units
),
parts AS MATERIALIZED (
  SELECT units.*, whole * part AS normalized_deployments, team_id = main_team AS is_main, shown_as, window_start
  FROM units
    JOIN scorecard_terms AS terms ON unit_at >= applies_from AND unit_at < applies_to
    JOIN shown USING (team_id)
  WHERE window_start = date_trunc(terms.period, unit_at)
),
sums AS (
  SELECT
    shown_as, window_start,
    count(*) FILTER (WHERE state = 'settled' AND is_main) AS units,
    count(*) FILTER (WHERE state = 'pending' AND is_main) AS pending_units,
    count(*) FILTER (WHERE state = 'settled' AND is_main AND NOT is_reviewed) AS unreviewed_units,
    count(*) FILTER (WHERE state = 'settled' AND is_main AND (was_reopened OR needed_hotfix)) AS reopened_units,
    count(*) FILTER (WHERE state = 'settled' AND is_main AND has_failed) AS failed_units,
    CAST(coalesce(sum(unsized_prs) FILTER (WHERE is_main), 0) AS BIGINT) AS unsized_prs,
    median(lines) FILTER (WHERE state = 'settled' AND is_main) AS median_lines,
    sum(survival * lines * part ORDER BY unit_id) FILTER (WHERE state = 'settled')
      / nullif(sum(lines * part ORDER BY unit_id) FILTER (WHERE state = 'settled'), 0) AS survival_14,
    sum(survival_30 * lines * part ORDER BY unit_id)
      / nullif(sum(lines * part ORDER BY unit_id) FILTER (WHERE survival_30 IS NOT NULL), 0) AS survival_30,
    coalesce(sum(normalized_deployments ORDER BY unit_id) FILTER (WHERE state = 'settled'), 0) AS nd,
    bool_and(is_frozen) AS is_frozen
  FROM parts
  GROUP BY shown_as, window_start
),
-- Each sample takes each unit as often as a Poisson draw with mean 1 says: the bootstrap, without drawing in turn. The
-- draws come from the unit's name, the seed and the number of the sample, so that the same data give the same interval.
seeded AS (
  SELECT
    shown_as, window_start, CAST(normalized_deployments AS DECIMAL(18,9)) AS normalized_deployments, samples,
    md5_number_lower(concat(seed, '/', unit_id)) % 2147483647 AS a, md5_number_upper(concat(seed, '/', unit_id)) % 2147483647 AS b
  FROM parts CROSS JOIN as_of JOIN scorecard_terms ON as_of >= applies_from AND as_of < applies_to
  WHERE state = 'settled'
),
draws AS (
  SELECT
    shown_as, window_start, normalized_deployments, sample,
    CAST((CAST(a AS BIGINT) + sample * CAST(b AS BIGINT)) % 2147483647 AS DOUBLE) / 2147483647 AS u
  FROM (SELECT *, unnest(range(1, samples + 1)) AS sample FROM seeded)
),
totals AS (
  SELECT
    shown_as, window_start, sample,
    sum(normalized_deployments * CASE
      WHEN u < 0.36787944 THEN 0 WHEN u < 0.73575888 THEN 1 WHEN u < 0.91969860 THEN 2 WHEN u < 0.98101184 THEN 3
      WHEN u < 0.99634015 THEN 4 WHEN u < 0.99940582 THEN 5 WHEN u < 0.99991676 THEN 6 ELSE 7
    END) AS nd
  FROM draws
  GROUP BY shown_as, window_start, sample
),
intervals AS (
  SELECT
    shown_as, window_start, round(quantile_cont(CAST(nd AS DOUBLE), 0.05), 6) AS nd_low,
    round(quantile_cont(CAST(nd AS DOUBLE), 0.95), 6) AS nd_high
  FROM totals
  GROUP BY shown_as, window_start
)
SELECT
  shown_as AS team_id, window_start, window_end, as_of,
  CASE WHEN window_end > as_of THEN 'open' WHEN window_end + INTERVAL 1 DAY * settle_days > as_of THEN 'settling'
    ELSE 'settled' END AS state,
  builders, builder_weeks,
  CASE WHEN authors >= builders_min THEN authors END AS authors,
  coalesce(units, 0) AS units, coalesce(pending_units, 0) AS pending_units,
  coalesce(unreviewed_units, 0) AS unreviewed_units, coalesce(reopened_units, 0) AS reopened_units,
  coalesce(failed_units, 0) AS failed_units, coalesce(unsized_prs, 0) AS unsized_prs,
  sums.median_lines, survival_14, survival_30,
  round(coalesce(nd, 0), 6) AS nd, coalesce(nd_low, 0) AS nd_low, coalesce(nd_high, 0) AS nd_high,
  CASE WHEN window_end + INTERVAL 1 DAY * settle_days <= as_of THEN coalesce(nd, 0) / nullif(builder_weeks, 0) END
    AS nd_per_builder_week,
  coalesce(is_frozen, true) AS is_frozen
FROM groups CROSS JOIN as_of
  JOIN scorecard_terms ON window_start >= applies_from AND window_start < applies_to
  LEFT JOIN sums USING (shown_as, window_start)
  LEFT JOIN writers USING (shown_as, window_start)
  LEFT JOIN intervals USING (shown_as, window_start)
