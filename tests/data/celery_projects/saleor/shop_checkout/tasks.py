from celery import shared_task


@shared_task
def complete(x):
    return x * 2
