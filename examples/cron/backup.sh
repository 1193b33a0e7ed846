#!/bin/sh
# Stands for a program of your own.
echo saved
