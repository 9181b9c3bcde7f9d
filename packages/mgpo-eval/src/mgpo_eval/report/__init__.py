"""`report.html`: what evaluations came to, how runs differ, where the model looked."""
