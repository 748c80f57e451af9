-- The scorecard, worked out now: models/scorecard/scorecard.sql says what each column is. One row per shown group and window, and one per window for keys of no team.
WITH paid AS MATERIALIZED (
  FROM team_spend
),
spend AS MATERIALIZED (
  SELECT
    shown_as AS team_id, window_start, sum(calls) AS calls, sum(unpriced_calls) AS unpriced_calls, sum(covered_calls) AS covered_calls,
    sum(spend_usd) AS spend_usd, sum(direct_usd) AS direct_usd, sum(inherited_usd) AS inherited_usd,
    sum(split_usd) AS split_usd, sum(overhead_usd) AS overhead_usd, sum(unattributed_usd) AS unattributed_usd,
    sum(disputed_usd) AS disputed_usd, sum(waste_usd) AS waste_usd
  FROM paid JOIN (FROM scorecard_groups WHERE shown_as IS NOT NULL) USING (team_id, window_start)
  GROUP BY shown_as, window_start
  UNION ALL BY NAME
  FROM paid WHERE team_id IS NULL
),
compared AS MATERIALIZED (
  SELECT
    delivered.*, units_min, windows_min,
    list(nd_per_builder_week) FILTER (WHERE state = 'settled' AND units >= units_min) OVER earlier AS past,
    windows_back
  FROM normalized_deployments AS delivered
    JOIN scorecard_terms ON window_start >= applies_from AND window_start < applies_to
  WINDOW earlier AS (PARTITION BY team_id ORDER BY window_start ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING)
),
judged AS (
  SELECT
    * EXCLUDE (past, windows_back, units_min, windows_min),
    units >= units_min AS is_enough,
    CASE WHEN state = 'settled' AND units >= units_min AND team_id <> '(other)' AND len(past) >= windows_min
      THEN list_median(past[greatest(1, len(past) - windows_back + 1):]) END AS usual
  FROM compared
)
SELECT
  coalesce(judged.team_id, spend.team_id) AS team_id,
  coalesce(judged.window_start, spend.window_start) AS window_start,
  window_end, as_of.as_of, state,
  CASE
    WHEN state <> 'settled' THEN 'not settled'
    WHEN usual IS NULL THEN 'not enough data'
    WHEN nd_low / builder_weeks > usual THEN 'above its own past'
    WHEN nd_high / builder_weeks < usual THEN 'below its own past'
    ELSE 'as usual'
  END AS reading,
  builders, builder_weeks, authors, units, pending_units,
  CASE WHEN is_enough THEN nd END AS nd,
  CASE WHEN is_enough THEN nd_low END AS nd_low,
  CASE WHEN is_enough THEN nd_high END AS nd_high,
  CASE WHEN is_enough THEN nd_per_builder_week END AS nd_per_builder_week,
  nd_per_builder_week / nullif(usual, 0) AS ndi,
  nd_low / nullif(builder_weeks * usual, 0) AS ndi_low,
  nd_high / nullif(builder_weeks * usual, 0) AS ndi_high,
  CASE WHEN is_enough THEN first_nd END AS first_nd,
  CASE WHEN is_enough THEN nd - first_nd END AS restated_nd,
  CASE WHEN is_enough THEN failed_units / units END AS failed_share,
  CASE WHEN is_enough THEN reopened_units / units END AS rework_share,
  CASE WHEN is_enough THEN unreviewed_units / units END AS unreviewed_share,
  pending_units / nullif(units + pending_units, 0) AS pending_share,
  CASE WHEN is_enough THEN survival_14 END AS survival_14,
  CASE WHEN is_enough THEN survival_30 END AS survival_30,
  CASE WHEN is_enough THEN median_lines END AS median_lines,
  unsized_prs, is_frozen,
  CAST(coalesce(calls, 0) AS BIGINT) AS calls, CAST(coalesce(unpriced_calls, 0) AS BIGINT) AS unpriced_calls,
  coalesce(spend_usd, 0) AS spend_usd,
  coalesce(direct_usd, 0) AS direct_usd, coalesce(inherited_usd, 0) AS inherited_usd, coalesce(split_usd, 0) AS split_usd,
  coalesce(overhead_usd, 0) AS overhead_usd, coalesce(unattributed_usd, 0) AS unattributed_usd,
  coalesce(disputed_usd, 0) AS disputed_usd, coalesce(waste_usd, 0) AS waste_usd,
  CASE WHEN is_enough AND state = 'settled' THEN round((direct_usd + inherited_usd + split_usd) / nullif(nd, 0), 4) END AS cts_ai_low_usd,
  CASE WHEN is_enough AND state = 'settled' THEN round((spend_usd - overhead_usd) / nullif(nd, 0), 4) END AS cts_ai_high_usd,
  CASE WHEN is_enough AND state = 'settled' THEN round((direct_usd + inherited_usd + split_usd) / nullif(nd_high, 0), 4) END AS cts_ai_from_usd,
  CASE WHEN is_enough AND state = 'settled' THEN round((spend_usd - overhead_usd) / nullif(nd_low, 0), 4) END AS cts_ai_to_usd,
  1 - CAST(unattributed_usd + disputed_usd AS DOUBLE) / nullif(CAST(spend_usd AS DOUBLE), 0) AS coverage,
  covered_calls / nullif(calls, 0) AS call_coverage,
  CAST(overhead_usd AS DOUBLE) / nullif(CAST(spend_usd AS DOUBLE), 0) AS overhead_share
FROM judged
  FULL JOIN spend ON spend.team_id = judged.team_id AND spend.window_start = judged.window_start
  CROSS JOIN as_of
  LEFT JOIN (SELECT team_id, window_start, nd AS first_nd FROM settled_windows) AS settled
    ON settled.team_id = judged.team_id AND settled.window_start = judged.window_start
