-- Pull requests that deployments carried. One row per deployment and pull request.
-- @deployment_id: Deployment
-- @pr_id: Pull request that it carried, and no successful deployment of the same repository and environment before it
FROM read_parquet('lake:work/**/deployment_prs.parquet', union_by_name = true, hive_partitioning = false)
