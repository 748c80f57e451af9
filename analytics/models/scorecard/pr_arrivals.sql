-- Where pull requests first arrived: their first deployment to production that succeeded and stayed. One row per merged pull request that has arrived.
-- @pr_id: Repository and number: acme/shop!46
-- @arrived_at: When it arrived, UTC: later deployments of it, to wherever, change nothing
-- @has_failed: Whether a deployment failed on the way
-- One that only failed deployments carried arrives with the next good one of the same repository and environment.
WITH shipped AS MATERIALIZED (
  FROM production_deployments
),
carried AS MATERIALIZED (
  SELECT pr_id, shipped.* FROM deployment_prs JOIN shipped USING (deployment_id)
),
arrivals AS (
  SELECT pr_id, ended_at AS arrived_at FROM carried WHERE is_eligible
  UNION ALL
  SELECT carried.pr_id, good.ended_at
  FROM (FROM carried WHERE NOT is_eligible) AS carried
    ASOF JOIN (FROM shipped WHERE is_eligible) AS good
      ON good.repo = carried.repo AND good.environment = carried.environment AND good.ended_at > carried.ended_at
  UNION ALL
  SELECT pr_id, merged_at
  FROM pull_requests CROSS JOIN as_of JOIN scorecard_terms ON merged_at >= applies_from AND merged_at < applies_to
  WHERE list_contains(merged_repos, repo) AND merged_at <= as_of
),
first_arrivals AS (
  SELECT pr_id, min(arrived_at) AS arrived_at
  FROM arrivals SEMI JOIN (FROM pull_requests WHERE merged_at IS NOT NULL) AS merged USING (pr_id)
  GROUP BY pr_id
),
failures AS (
  SELECT pr_id, min(ended_at) AS failed_at FROM carried WHERE NOT is_eligible GROUP BY pr_id
)
SELECT pr_id, arrived_at, coalesce(failed_at <= arrived_at, false) AS has_failed
FROM first_arrivals LEFT JOIN failures USING (pr_id)
