"""The names of kube-state-metrics that manifests may use: of Jobs and CronJobs, without any setting of its own.

Taken from docs/metrics/workload of kube-state-metrics 2.20; all are STABLE there.
"""

METRICS = frozenset(
    {
        *("kube_cronjob_created", "kube_cronjob_info", "kube_cronjob_next_schedule_time", "kube_cronjob_spec_suspend"),
        *("kube_cronjob_status_active", "kube_cronjob_status_last_schedule_time"),
        "kube_cronjob_status_last_successful_time",
        *("kube_job_complete", "kube_job_created", "kube_job_failed", "kube_job_info", "kube_job_owner"),
        *("kube_job_status_active", "kube_job_status_completion_time", "kube_job_status_failed"),
        *("kube_job_status_start_time", "kube_job_status_succeeded"),
    }
)
