-- All versions of what deployments carried that were seen, those that are gone included. One row per version.
-- @deployment_id: Deployment
-- @pr_id: Pull request that it carried, and no successful deployment of the same repository and environment before it
-- @seen_at: When this version was first seen, UTC: it was the present one from then until the next one of the same key
-- @is_gone: Whether it was found then to be gone; the other columns are those of the version before
FROM read_parquet('lake:work/**/deployment_pr_versions.parquet', union_by_name = true, hive_partitioning = false)
