-- Waste claims of each team, model and day at most what they cost; calls that were corrected since are left out.
WITH claimed AS (
  SELECT team_id, model, on_day, sum(claimed_usd) AS claimed_usd
  FROM waste_claimed
    ANTI JOIN corrections ON corrections.call_id = waste_claimed.call_id
      AND corrections.corrected_at > waste_claimed.as_of
  GROUP BY ALL
),
spent AS (
  SELECT
    team_id, coalesce(response_model, request_model) AS model, CAST(started_at AS DATE) AS on_day,
    sum(coalesce(contracted_cost_usd, list_cost_usd)) AS cost_usd
  FROM calls
  GROUP BY ALL
)
SELECT claimed.team_id, claimed.model, claimed.on_day, claimed_usd, cost_usd
FROM claimed
  LEFT JOIN spent ON spent.team_id IS NOT DISTINCT FROM claimed.team_id
    AND spent.model IS NOT DISTINCT FROM claimed.model AND spent.on_day = claimed.on_day
WHERE claimed_usd > coalesce(cost_usd, 0)
